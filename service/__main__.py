"""Let ``python -m service`` be the ``lossd`` command."""

from service.cli import main

if __name__ == "__main__":
    main()
