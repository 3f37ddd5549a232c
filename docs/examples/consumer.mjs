// A durable consumer in Node: each mail is handled once in effect, whatever is killed, and its attachments are read.
//
//   npm install @nats-io/transport-node @nats-io/jetstream
//   node consumer.mjs nats://127.0.0.1:4222 crm-node mails
//
// What a mail leads to is a file that is named by the event's ce-id, and appears whole or not at all; only then the
// event is acknowledged. Killed before: the event comes again. Killed after: it comes again, and the file is there.
import { access, mkdir, open, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { connect } from '@nats-io/transport-node';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';

const PREFIX = 'mail'; // nats.prefix of mailbus's settings; streams have it in capitals
const [servers, name, folder] = process.argv.slice(2);

async function isHandled(id) {
  return access(join(folder, `${id}.json`)).then(() => true, () => false);
}

async function write(id, result) {
  const draft = join(folder, `${id}.${process.pid}.draft`);
  const file = await open(draft, 'w');
  await file.writeFile(JSON.stringify(result));
  await file.sync();
  await file.close();
  await rename(draft, join(folder, `${id}.json`)); // whole or not at all
}

// The bytes of a blob. Needs one permission: $JS.API.STREAM.MSG.GET.OBJ_mail-blobs
async function blob(manager, id) {
  const bucket = `${PREFIX}-blobs`;
  const name = Buffer.from(id).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
  const meta = (await manager.streams.getMessage(`OBJ_${bucket}`, { last_by_subj: `$O.${bucket}.M.${name}` })).json();
  const chunks = [];
  let seq = 1;
  for (let n = 0; n < meta.chunks; n++) {
    const query = { seq, next_by_subj: `$O.${bucket}.C.${meta.nuid}` };
    const chunk = await manager.streams.getMessage(`OBJ_${bucket}`, query);
    chunks.push(chunk.data);
    seq = chunk.seq + 1;
  }
  return Buffer.concat(chunks);
}

// What your service does with a mail. Done twice it must be as if done once: here the name of the file sees to that.
async function handle(id, email, manager) {
  let bytes = 0;
  for (const part of email.attachments) {
    bytes += (await blob(manager, part.blobId)).length;
  }
  await write(id, { id: email.id, subject: email.subject, attachments: email.attachments.length, bytes });
}

await mkdir(folder, { recursive: true });
const client = await connect({ servers, maxReconnectAttempts: -1 });
const manager = await jetstreamManager(client);
const stream = jetstream(client);
// Durable: the server keeps how far it is.
const consumer = await stream.consumers.get(`${PREFIX.toUpperCase()}_IN`, name);
for await (const event of await consumer.consume({ max_messages: 20 })) {
  const id = event.headers?.get('ce-id');
  // Other types of events may come one day: what is not known is acknowledged.
  if (event.headers?.get('ce-type') === 'mailbus.received' && !(await isHandled(id))) {
    await handle(id, event.json(), manager);
  }
  await event.ackAck();
}
