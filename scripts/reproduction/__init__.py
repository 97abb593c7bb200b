"""The papers' tables as one command: rows, processes and reports of scripts/reproduce.py."""
