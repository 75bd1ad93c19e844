"""Dropout along sequences: time steps, states, words, positions.

recurrence   LSTM and GRU written out over time
variational  one mask for all time steps
recurrent    a fresh mask at every time step
embedding    words, tokens, positions
"""
