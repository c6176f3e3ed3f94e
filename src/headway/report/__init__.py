"""Records to one self-contained HTML page, to a picture, and to the terminal.

This room knows records. It does not measure, choose, or know how a record was made; it never opens a socket, and the page
it writes refers to nothing outside itself. The parts are imported one by one, so that the terminal needs only the base install:

- ``headway.report.page.render(run_folder)``: ``report.html`` (needs the extra ``tune``);
- ``headway.report.picture.frontier_png(records, path)``: the frontier as a PNG (needs the extra ``tune``);
- ``headway.report.terminal``: ``print_summary``, ``print_inspect``, ``print_doctor``.
"""
