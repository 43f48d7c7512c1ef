"""What every MusicGen is like, whatever computes it: facts, options, conditioning, and how a run goes."""
