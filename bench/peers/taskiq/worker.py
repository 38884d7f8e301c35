"""taskiq over aio-pika: call, update, ack; 400 tasks at once."""

import os

import aiohttp
import asyncpg
import uvloop
from taskiq import TaskiqEvents, TaskiqState
from taskiq_aio_pika import AioPikaBroker

uvloop.install()
broker = AioPikaBroker(os.environ["AMQP_URL"], qos=400)
database: asyncpg.Pool
graph: aiohttp.ClientSession


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def start(_: TaskiqState) -> None:
    global database, graph
    database = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=4, max_size=16)
    graph = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=400))


@broker.task(task_name="dispatch")
async def dispatch(message_id: str, dest: str, text: str) -> None:
    async with graph.post(
        os.environ["GRAPH_URL"] + "/v25.0/me/messages",
        json={"recipient": {"id": dest}, "messaging_type": "RESPONSE", "message": {"text": text}},
        headers={"authorization": "Bearer EAAtest"},
    ) as answer:
        answer.raise_for_status()
        sent = await answer.json()
    await database.execute(
        "update message set status = 'sent', attempts = attempts + 1, provider_id = $1, done_at = clock_timestamp() "
        "where id = $2::uuid",
        sent["message_id"],
        message_id,
    )
