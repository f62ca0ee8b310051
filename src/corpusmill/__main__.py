"""`python -m corpusmill` is the `corpusmill` command."""

from corpusmill.cli import main

if __name__ == "__main__":
    main()
