"""The habits of a training run, whatever learns in it: its lock, signals, plan, diary, checkpoints, page."""
