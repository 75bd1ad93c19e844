"""What a call takes and what it gives back: the words that everything above uses.

inputs      rows as they come, checked against the network
lookups     indices among them, held to the tables that they are looked up in
sampling    T, seed, masks, draw, method, tolerance
arguments   what an engine is given, checked
columns     arrays whose first axis is the row
prediction  the frozen columns of an answer
frames      a prediction as a DataFrame
cutting     predictions of neighbouring rows: some of them, and several as one
"""
