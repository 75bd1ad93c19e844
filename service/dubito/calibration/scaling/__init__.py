"""What makes the passes' distributions likely: fitted scales of logits and of noise.

temperature  one number for all logits
scaling      one for every class, or a monotone map
noise        of a regression
bounded      what one row may cost each of them
"""
