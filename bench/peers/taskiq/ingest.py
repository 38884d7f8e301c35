"""FastAPI and asyncpg in front of taskiq: row, persistent job, answer."""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI
from pydantic import BaseModel

from worker import broker, dispatch


class Message(BaseModel):
    recipient_id: str
    text: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.database = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=8, max_size=16)
    await broker.startup()
    yield
    await broker.shutdown()


app = FastAPI(lifespan=lifespan)


@app.post("/dispatch", status_code=202)
async def accept(message: Message) -> dict[str, str]:
    message_id = uuid.uuid4()
    await app.state.database.execute(
        "insert into message (id, dest, body) values ($1, $2, $3)", message_id, message.recipient_id, message.text
    )
    await dispatch.kiq(str(message_id), message.recipient_id, message.text)
    return {"id": str(message_id)}
