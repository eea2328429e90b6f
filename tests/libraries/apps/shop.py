"""The application of these tests: each route makes one call with one client."""

# mypy: disable-error-code="import-not-found"
# The clients are installed in the environment of these tests, not in that of the tools.

import logging
import os

import aiohttp
import asyncpg
import httpx
import loguru
import psycopg
import redis
import redis.asyncio
import structlog
from fastapi import FastAPI
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

log = logging.getLogger("shop")
log.setLevel(logging.INFO)
app = FastAPI()

POSTGRESQL_PORT = int(os.environ["POSTGRESQL_PORT"])
REDIS_PORT = int(os.environ["REDIS_PORT"])
ADDRESS = f"shop@127.0.0.1:{POSTGRESQL_PORT}/postgres"
QUERY = "SELECT 6 * 7"
SLOW_QUERY = "SELECT 42 FROM pg_sleep(0.2) WHERE 'hunter2' <> ''"


@app.get("/httpx")
async def call_httpx(url: str) -> int:
    """Calls with httpx's async client."""
    async with httpx.AsyncClient(trust_env=False, follow_redirects=True) as client:
        return (await client.get(url)).status_code


@app.get("/httpx-sync")
def call_httpx_sync(url: str) -> int:
    """Calls with httpx's sync client, in a worker thread."""
    with httpx.Client(trust_env=False, follow_redirects=True) as client:
        return client.get(url).status_code


@app.get("/aiohttp")
async def call_aiohttp(url: str) -> int:
    """Calls with aiohttp's client."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        status: int = response.status
    return status


@app.get("/asyncpg")
async def call_asyncpg() -> int:
    """Queries with asyncpg."""
    connection = await asyncpg.connect(f"postgresql://{ADDRESS}")
    try:
        value: int = await connection.fetchval(QUERY)
    finally:
        await connection.close()
    return value


@app.get("/psycopg")
async def call_psycopg() -> int:
    """Queries with psycopg's async connection."""
    async with await psycopg.AsyncConnection.connect(f"postgresql://{ADDRESS}") as connection:
        cursor = await connection.execute(QUERY)
        row = await cursor.fetchone()
    return int(row[0]) if row else 0


@app.get("/psycopg-sync")
def call_psycopg_sync() -> int:
    """Queries with psycopg's sync connection, in a worker thread."""
    with psycopg.connect(f"postgresql://{ADDRESS}") as connection, connection.cursor() as cursor:
        cursor.execute(QUERY)
        row = cursor.fetchone()
    return int(row[0]) if row else 0


@app.get("/slow-asyncpg")
async def query_slowly_asyncpg() -> int:
    """Queries slowly with asyncpg, with a secret in the statement."""
    connection = await asyncpg.connect(f"postgresql://{ADDRESS}")
    try:
        value: int = await connection.fetchval(SLOW_QUERY)
    finally:
        await connection.close()
    return value


@app.get("/slow-psycopg")
def query_slowly_psycopg() -> int:
    """Queries slowly with psycopg, with a secret in the statement."""
    with psycopg.connect(f"postgresql://{ADDRESS}") as connection, connection.cursor() as cursor:
        cursor.execute(SLOW_QUERY)
        row = cursor.fetchone()
    return int(row[0]) if row else 0


@app.get("/slow-sqlalchemy")
async def query_slowly_sqlalchemy() -> int:
    """Queries slowly with SQLAlchemy over asyncpg, which records a span each."""
    engine = create_async_engine(f"postgresql+asyncpg://{ADDRESS}")
    async with engine.connect() as connection:
        value: int = (await connection.execute(text(SLOW_QUERY))).scalar_one()
    await engine.dispose()
    return value


@app.get("/sqlalchemy-asyncpg")
async def call_sqlalchemy_asyncpg() -> int:
    """Queries with SQLAlchemy over asyncpg."""
    engine = create_async_engine(f"postgresql+asyncpg://{ADDRESS}")
    async with engine.connect() as connection:
        value: int = (await connection.execute(text(QUERY))).scalar_one()
    await engine.dispose()
    return value


@app.get("/sqlalchemy-psycopg")
def call_sqlalchemy_psycopg() -> int:
    """Queries with SQLAlchemy over psycopg, in a worker thread."""
    engine = create_engine(f"postgresql+psycopg://{ADDRESS}")
    with engine.connect() as connection:
        value: int = connection.execute(text(QUERY)).scalar_one()
    engine.dispose()
    return value


@app.get("/redis")
async def call_redis() -> bool:
    """Writes with redis-py's async client."""
    async with redis.asyncio.Redis(host="127.0.0.1", port=REDIS_PORT) as client:
        return bool(await client.set("key", "value"))


@app.get("/redis-sync")
def call_redis_sync() -> bool:
    """Writes with redis-py's sync client, in a worker thread."""
    with redis.Redis(host="127.0.0.1", port=REDIS_PORT) as client:
        return bool(client.set("key", "value"))


@app.get("/log")
async def write_logs() -> None:
    """Logs once with each library."""
    log.info("from logging")
    structlog.get_logger().info("from structlog", item=7)
    loguru.logger.bind(item=7).info("from loguru")
