"""A PostgreSQL server for the tests: the one that runs already, or one of this process's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[2]

Connect = Callable[[], "psycopg.Connection[Any]"]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Where the server listens. A server of our own ends when its standard input does."""
    if host := os.environ.get("SAGAD_BARRIER_PGHOST"):
        yield host
        return
    command = [str(ROOT / "with-postgres"), "sh", "-c", 'echo "$SAGAD_BARRIER_PGHOST"; cat']
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        yield process.stdout.readline().strip()
        process.stdin.close()


@pytest.fixture
def connect(server: str, request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes connections in a schema of the test's own."""
    schema = "python_" + "".join(char if char.isalnum() else "_" for char in request.node.name)[:50]
    options = f"-c search_path={schema} -c synchronous_commit=off"
    opened: list[psycopg.Connection[Any]] = []

    def connection() -> psycopg.Connection[Any]:
        made = psycopg.connect(
            host=server, user="postgres", dbname="postgres", options=options, autocommit=True
        )
        opened.append(made)
        return made

    connection().execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    opened[0].execute(f"CREATE SCHEMA {schema}")
    yield connection
    opened[0].execute(f"DROP SCHEMA {schema} CASCADE")
    for made in opened:
        made.close()
