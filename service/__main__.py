"""Make ``python -m service`` the ``lossd`` command."""

from service.cli import main

if __name__ == "__main__":
    main()
