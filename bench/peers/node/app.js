// fastify, pg, amqplib with confirms, undici: `node app.js ingest|worker`. Row, persistent confirmed job, call,
// update, ack: each per message, many messages at once over pooled connections.
const { randomUUID } = require('node:crypto');
const amqp = require('amqplib');
const { Pool } = require('pg');

const QUEUE = 'dispatch';
const IN_FLIGHT = 200;
const database = new Pool({ connectionString: process.env.DATABASE_URL, max: 16 });

async function ingest() {
  const channel = await (await amqp.connect(process.env.AMQP_URL)).createConfirmChannel();
  await channel.assertQueue(QUEUE, { durable: true });
  const publish = (job) => new Promise((resolve, reject) => {
    const body = Buffer.from(JSON.stringify(job));
    channel.sendToQueue(QUEUE, body, { persistent: true }, (error) => (error ? reject(error) : resolve()));
  });
  const text = { type: 'string' };
  const schema = { body: { type: 'object', required: ['recipient_id', 'text'], properties: { recipient_id: text, text } } };
  const server = require('fastify')();
  server.post('/dispatch', { schema }, async (request, reply) => {
    const job = { id: randomUUID(), dest: request.body.recipient_id, text: request.body.text };
    await database.query({
      name: 'insert',
      text: 'insert into message (id, dest, body) values ($1, $2, $3)',
      values: [job.id, job.dest, job.text],
    });
    await publish(job);
    reply.code(202);
    return { id: job.id };
  });
  await server.listen({ host: '127.0.0.1', port: Number(process.env.PORT) });
}

async function worker() {
  const graph = new (require('undici').Pool)(process.env.GRAPH_URL, { connections: IN_FLIGHT, pipelining: 1 });
  const channel = await (await amqp.connect(process.env.AMQP_URL)).createChannel();
  await channel.assertQueue(QUEUE, { durable: true });
  await channel.prefetch(IN_FLIGHT);
  await channel.consume(QUEUE, async (delivery) => {
    try {
      const { id, dest, text } = JSON.parse(delivery.content);
      const answer = await graph.request({
        method: 'POST',
        path: '/v25.0/me/messages',
        headers: { 'content-type': 'application/json', authorization: 'Bearer EAAtest' },
        body: JSON.stringify({ recipient: { id: dest }, messaging_type: 'RESPONSE', message: { text } }),
      });
      const sent = await answer.body.json();
      if (answer.statusCode !== 200) throw new Error(`Graph answered ${answer.statusCode}`);
      await database.query({
        name: 'update',
        text: "update message set status = 'sent', attempts = attempts + 1, provider_id = $1, done_at = clock_timestamp() where id = $2",
        values: [sent.message_id, id],
      });
      channel.ack(delivery);
    } catch (error) {
      console.error(error.message);
      channel.nack(delivery, false, true);
    }
  });
}

const role = process.argv[2] === 'ingest' ? ingest : worker;
role().catch((error) => {
  console.error(error);
  process.exit(1);
});
