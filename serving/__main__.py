from components.core.command import with_one_sentence
from serving.command import app

with_one_sentence(app, prog_name="python -m serving")
