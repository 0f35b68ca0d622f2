"""Short instructions in Chinese and English whose answers a program can check: generator, scorer and evalset of the task ``general``."""
