"""How far mailbus agrees with published expectations: `python -m tests.corpora DIR [CORPUS …] [--differences]`.

DIR holds corpora, a folder each, with messages and `truth.jsonl`: one object a line, `file` and `expect`, from the
tests of the program that the corpus is of. Nothing of them is part of this repository.
"""
