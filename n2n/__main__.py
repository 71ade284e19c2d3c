"""``python -m n2n`` is ``n2n``, of this very Python."""

from n2n.cli import main

main(prog_name="n2n")
