"""Short instructions in Chinese and English whose answers a program can check: generator, scorer and gold set of the task ``general``."""
