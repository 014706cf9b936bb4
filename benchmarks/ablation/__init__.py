"""What each part of the model is worth: every encoder, its options, every term of the score, the convolution itself."""
