"""MLPerf inference scenarios, one a file: ``RULES`` says what a conforming run needs, ``run(drive, rules, asked)`` makes one.

A scenario knows how queries are issued and what the final result is (mlcommons/inference, ``loadgen/test_settings.h``; the numbers are those of
``loadgen/mlperf.conf``). It knows no target: ``contract.Drive`` is what it may do with one. The file's name, with ``-`` for ``_``, is the
scenario's name.
"""
