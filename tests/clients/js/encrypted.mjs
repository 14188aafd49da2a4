// Two people talk in an encrypted room, with matrix-js-sdk and its Rust cryptography, over two devices of one of them.
// What they saw goes to standard output as JSON; the test judges it.
//
// Usage: node encrypted.mjs BASE_URL
// Writes "restart" when the server is to be killed and started again, and waits for a line on standard input.

import { createInterface } from "node:readline";
import { ClientEvent, createClient, MatrixEventEvent, RoomEvent, RoomMemberEvent } from "matrix-js-sdk";
import { CryptoEvent, VerificationPhase, VerificationRequestEvent, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/index.js";
import { logger } from "matrix-js-sdk/lib/logger.js";

logger.setLevel("silent");
console.debug = console.info = console.warn = () => {};

const baseUrl = process.argv[2];
const TIMEOUT_MS = 30_000;
const lines = createInterface({ input: process.stdin });

/** Resolves with what `take` makes of the first event of an emitter that it makes something of. */
function seen(emitter, event, take) {
    return new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`no ${event} in time`)), TIMEOUT_MS);
        const listen = (...args) => {
            const found = take(...args);
            if (found === undefined) return;
            clearTimeout(timer);
            emitter.off(event, listen);
            resolve(found);
        };
        emitter.on(event, listen);
    });
}

/** Resolves with what `take` returns once it returns something. */
async function eventually(what, take) {
    const deadline = Date.now() + TIMEOUT_MS;
    while (Date.now() < deadline) {
        const found = await take();
        if (found) return found;
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`not in time: ${what}`);
}

const password = (name) => `password of ${name}`;

const auth = (name) => (makeRequest) =>
    makeRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: name },
        password: password(name),
    });

/** A device of a user, syncing, with its keys uploaded. `secrets` maps key IDs of the secret storage to keys. */
async function start(account, secrets) {
    const client = createClient({
        baseUrl,
        userId: account.user_id,
        accessToken: account.access_token,
        deviceId: account.device_id,
        cryptoCallbacks: {
            getSecretStorageKey: async ({ keys }) => {
                const id = Object.keys(keys).find((key) => secrets.has(key)) ?? Object.keys(keys)[0];
                return [id, secrets.get(id) ?? secrets.get("new")];
            },
            cacheSecretStorageKey: (id, _info, key) => secrets.set(id, key),
        },
    });
    await client.initRustCrypto({ useIndexedDB: false });
    const ready = seen(client, ClientEvent.Sync, (state) => (state === "PREPARED" ? true : undefined));
    await client.startClient({ initialSyncLimit: 20 });
    await ready;
    return client;
}

async function register(name, secrets) {
    const account = await createClient({ baseUrl }).registerRequest({
        username: name,
        password: password(name),
        auth: { type: "m.login.dummy" },
    });
    return start(account, secrets);
}

async function logIn(name, secrets) {
    const account = await createClient({ baseUrl }).loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: name },
        password: password(name),
    });
    return start(account, secrets);
}

/** The text of a message that reached a client and that it could decrypt. */
function text(client, roomId, body) {
    return eventually(`"${body}" at ${client.getUserId()} ${client.getDeviceId()}`, async () => {
        const room = client.getRoom(roomId);
        const events = room?.getLiveTimeline().getEvents() ?? [];
        const found = events.find((event) => event.getContent().body === body);
        return found && { encrypted: found.isEncrypted(), failed: found.isDecryptionFailure(), sender: found.getSender() };
    });
}

/** Compares short strings on both sides of a verification, and says yes. */
async function verify(mine, theirs) {
    await theirs.accept();
    await eventually("ready", () => mine.phase >= VerificationPhase.Ready);
    const verifier = await mine.startVerification("m.sas.v1");
    const other = await eventually("verifier", () => theirs.verifier);
    const emoji = [];
    const both = [verifier, other].map((one) =>
        seen(one, VerifierEvent.ShowSas, (sas) => (emoji.push(JSON.stringify(sas.sas.emoji)), sas)),
    );
    const running = [verifier.verify(), other.verify()];
    const shown = await Promise.all(both);
    await Promise.all(shown.map((sas) => sas.confirm()));
    await Promise.all(running);
    return emoji[0] === emoji[1];
}

const result = {};
const secretsOfAlice = new Map();
const [alice, bob] = await Promise.all([register("alice", secretsOfAlice), register("bob", new Map())]);

// Both have an identity; Alice keeps hers, and her room keys, on the server as well.
await bob.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: auth("bob") });
await alice.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: auth("alice") });
const recovery = await alice.getCrypto().createRecoveryKeyFromPassphrase();
secretsOfAlice.set("new", recovery.privateKey);
await alice.getCrypto().bootstrapSecretStorage({
    createSecretStorageKey: async () => recovery,
    setupNewSecretStorage: true,
    setupNewKeyBackup: true,
});
result.backup = await eventually("a backup", () => alice.getCrypto().getActiveSessionBackupVersion());

const { room_id: roomId } = await alice.createRoom({
    preset: "private_chat",
    invite: [bob.getUserId()],
    initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
});
await eventually("the invitation", () => bob.getRoom(roomId));
await bob.joinRoom(roomId);
await eventually("Bob in the room", () => alice.getRoom(roomId)?.getMember(bob.getUserId())?.membership === "join");

await alice.sendTextMessage(roomId, "Nobody else reads this.");
result.atBob = await text(bob, roomId, "Nobody else reads this.");
await bob.sendTextMessage(roomId, "Nor this.");
result.atAlice = await text(alice, roomId, "Nor this.");

// Alice and Bob verify each other: their identities sign one another.
const atBob = seen(bob, CryptoEvent.VerificationRequestReceived, (request) => request);
const request = await alice.getCrypto().requestVerificationDM(bob.getUserId(), roomId);
result.sameEmoji = await verify(request, await atBob);
result.verified = await eventually("Bob to be verified", async () => {
    const status = await alice.getCrypto().getUserVerificationStatus(bob.getUserId());
    return status.isCrossSigningVerified();
});

const backup = () => alice.http.authedRequest("GET", "/room_keys/version");
await eventually("both keys in the backup", async () => (await backup()).count >= 2);

// The server dies and comes back; the conversation goes on.
console.log("restart");
await new Promise((resolve) => lines.once("line", resolve));
[alice, bob].forEach((client) => client.retryImmediately());
await eventually("an answer", () => alice.whoami().catch(() => undefined));
await bob.sendTextMessage(roomId, "After the restart.");
[alice, bob].forEach((client) => client.retryImmediately());
result.afterRestart = await text(alice, roomId, "After the restart.");

// A new device of Alice signs itself with the identity from the secret storage, and reads what was before it.
const laptop = await logIn("alice", new Map([["new", recovery.privateKey]]));
await laptop.getCrypto().userHasCrossSigningKeys(laptop.getUserId(), true);
await laptop.getCrypto().bootstrapCrossSigning({});
await laptop.getCrypto().loadSessionBackupPrivateKeyFromSecretStorage();
await laptop.getCrypto().checkKeyBackupAndEnable();
const restored = await laptop.getCrypto().restoreKeyBackup();
result.restored = restored.imported >= 2 && restored.imported === restored.total;
for (const event of laptop.getRoom(roomId).getLiveTimeline().getEvents()) {
    if (event.isEncrypted()) await laptop.decryptEventIfNeeded(event, { isRetry: true });
}
result.onLaptop = await text(laptop, roomId, "Nobody else reads this.");
result.laptopVerified = await eventually("the laptop to be signed", async () => {
    const status = await bob.getCrypto().getDeviceVerificationStatus(alice.getUserId(), laptop.getDeviceId());
    return status?.signedByOwner;
});
await laptop.sendTextMessage(roomId, "From the laptop.");
result.fromLaptop = await text(bob, roomId, "From the laptop.");
await bob.sendTextMessage(roomId, "To both.");
result.toBoth = [await text(alice, roomId, "To both."), await text(laptop, roomId, "To both.")];

// A dehydrated device receives what is said while all others are away.
result.dehydrates = await laptop.getCrypto().isDehydrationSupported();
await laptop.getCrypto().startDehydration({ createNewKey: true, rehydrate: false });
await eventually("Bob to know the dehydrated device", async () => {
    const devices = await bob.getCrypto().getUserDeviceInfo([alice.getUserId()]);
    return [...devices.get(alice.getUserId()).values()].some((device) => device.dehydrated);
});
for (const client of [alice, laptop]) {
    await client.logout(true);
}
await eventually("Bob to know that they are gone", async () => {
    const devices = await bob.getCrypto().getUserDeviceInfo([alice.getUserId()]);
    return devices.get(alice.getUserId()).size === 1;
});
await bob.getCrypto().forceDiscardSession(roomId);
await bob.sendTextMessage(roomId, "While you are away.");
const phone = await logIn("alice", new Map([["new", recovery.privateKey]]));
await phone.getCrypto().userHasCrossSigningKeys(phone.getUserId(), true);
await phone.getCrypto().bootstrapCrossSigning({});
const rehydrated = seen(phone, CryptoEvent.RehydrationCompleted, () => true);
await phone.getCrypto().startDehydration({ onlyIfKeyCached: false });
result.rehydrated = await rehydrated;
for (const event of phone.getRoom(roomId).getLiveTimeline().getEvents()) {
    if (event.isEncrypted()) await phone.decryptEventIfNeeded(event, { isRetry: true });
}
result.whileAway = await text(phone, roomId, "While you are away.");

for (const client of [bob, phone]) {
    client.stopClient();
}
console.log(JSON.stringify(result));
process.exit(0);
