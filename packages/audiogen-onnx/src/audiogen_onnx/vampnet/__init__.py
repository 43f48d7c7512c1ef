"""VampNet: masks, sampling, the network, its export and its use."""
