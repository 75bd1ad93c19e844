"""What runs when, and in which form.

rewrite    rules that give a graph less to do
placement  programs and weights on a device
layout     where every value of the graph holds its rows
plan       what runs once, once per row, once per sample, once per both
rates      how fast the device is
choice     which forms pay, from how many rows on
plans      the plans of the shapes that were asked about
cost       what a pass costs, for those who ask
"""
