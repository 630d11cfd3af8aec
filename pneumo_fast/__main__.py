"""``python -m pneumo_fast`` is the same as ``pneumo-fast``."""

from pneumo_fast.cli.app import main

if __name__ == "__main__":
    main()
