"""What a user imports where the network is trained: dropout layers, training, export."""
