"""The parts of scripts/reproduce.py: tables, training processes and reports."""
