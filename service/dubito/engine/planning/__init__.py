"""What runs how often.

rewrite    rules that give a graph less to do
placement  programs and weights on a device
layout     where every value of the graph holds its rows
plan       what runs once, once per row, once per sample, once per both
"""
