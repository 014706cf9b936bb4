"""What the model is fed, read from artifacts: the log as integers, users' histories and statistics at a moment.

Training, evaluation and monitoring read through here, so that all of them see a user as the store knew them.
"""
