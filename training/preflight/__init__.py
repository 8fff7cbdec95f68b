"""What a Gaudi card would refuse or run badly, said on a CPU before a DL1 is rented.

`python -m training.preflight --help`. `gaudi.py` holds the facts with their sources, `step.py` traces the
real train step, `checks.py` judges it, `cost.py` computes memory, time and money, `feed.py` measures the
input pipeline, `report.py` prints.
"""
