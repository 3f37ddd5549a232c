// What a Node user would write: imapflow + nats.js, what became of the known messages of an INBOX since the last run.
// Keeps UIDVALIDITY, modseq and the flags of each UID in a file, as a program must that is to say what changed.
//   node node-resync.mjs IMAP_HOST IMAP_PORT USER PASSWORD NATS_URL STATE_FILE
import {readFile, writeFile} from 'node:fs/promises';
import {ImapFlow} from 'imapflow';
import {connect} from '@nats-io/transport-node';
import {jetstream, jetstreamManager} from '@nats-io/jetstream';

const [host, port, user, pass, servers, file] = process.argv.slice(2);
const known = await readFile(file, 'utf8').then(JSON.parse, () => null);
const flagsOf = known ? new Map(known.flags) : new Map();
const client = new ImapFlow({
    host, port: +port, secure: false, doSTARTTLS: false, auth: {user, pass}, logger: false, qresync: true,
});
const vanished = [];
client.on('expunge', (gone) => { if (gone.uid) vanished.push(gone.uid); });
const nc = await connect({servers});
await (await jetstreamManager(nc)).streams.add({name: 'PEER_RESYNC', subjects: ['peer.resync.>']});
const js = jetstream(nc);
let pending = [], changed = 0, removed = 0;
const tell = async (kind, event) => {
    pending.push(js.publish(`peer.resync.${kind}`, JSON.stringify(event)));
    if (pending.length >= 256) { await Promise.all(pending); pending = []; }
};

await client.connect();
const mailbox = await client.mailboxOpen('INBOX', {readOnly: true});
const {uidValidity, highestModseq} = mailbox;
const since = known?.modseq && highestModseq && String(uidValidity) === known.uidValidity ? BigInt(known.modseq) : undefined;
const there = new Set();
for await (const m of client.fetch('1:*', {uid: true, flags: true}, {uid: true, changedSince: since})) {
    there.add(m.uid);
    const flags = [...m.flags].filter((flag) => flag !== '\\Recent').sort().join(' ');
    const before = flagsOf.get(m.uid);
    flagsOf.set(m.uid, flags);
    if (before !== undefined && before !== flags) { changed++; await tell('changed', {uid: m.uid, flags}); }
}
let gone = vanished;
if (since === undefined) {
    gone = [...flagsOf.keys()].filter((uid) => !there.has(uid));
} else if (!client.enabled.has('QRESYNC')) {
    const all = new Set(await client.search({all: true}, {uid: true}));
    gone = [...flagsOf.keys()].filter((uid) => !all.has(uid));
}
for (const uid of gone) {
    if (flagsOf.delete(uid)) { removed++; await tell('removed', {uid}); }
}
await Promise.all(pending);
await writeFile(file, JSON.stringify({
    uidValidity: String(uidValidity), modseq: highestModseq ? String(highestModseq) : null, flags: [...flagsOf],
}));
console.log(JSON.stringify({peer: 'imapflow+nats.js', known: flagsOf.size, changed, removed}));
await client.logout(); await nc.close();
