"""python -m components.train"""

from components.core.command import run_command

run_command("train", "Train the graph convolutional recommender and write its bundle.")
