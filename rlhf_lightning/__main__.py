"""`python -m rlhf_lightning`, for where there is no train.py."""

from rlhf_lightning.cli.program import program

if __name__ == "__main__":
    program()
