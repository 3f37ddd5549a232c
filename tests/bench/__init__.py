"""mailbus beside its peers on one machine in one run: `make bench`. What is timed, and why: docs/bench.md.

__main__.py   words → which works run, how often; prints, writes docs/bench.md
ground.py     the programs and servers a run stands on; refuses where one is missing
machine.py    processor and versions, for the table
programs.py   the peers and the references as child processes → messages a second
bus.py        mailbus as a child process, and its log read back and counted
ingest.py send.py latency.py idle.py   one work each
table.py      figures → medians, ratios, Markdown
peers/        the peers' programs, unchanged
"""
