"""The command that each example's docstring ends with is run to the letter, in a copy of the folder, by a shell."""
