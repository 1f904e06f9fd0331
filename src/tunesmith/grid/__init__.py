"""Every method with every objective, precision and kind of batch, on a tiny model: does it do what it says?"""
