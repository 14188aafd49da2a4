// Two web clients chat, with matrix-js-sdk. What they saw goes to standard output as JSON; the test judges it.
//
// Usage: node chat.mjs BASE_URL

import { ClientEvent, createClient, EventType, MsgType, RoomEvent, RoomMemberEvent } from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";

logger.setLevel("error");

const baseUrl = process.argv[2];
const TIMEOUT_MS = 20_000;

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

async function start(name) {
    const anonymous = createClient({ baseUrl });
    const password = `password of ${name}`;
    await anonymous.registerRequest({ username: name, password, auth: { type: "m.login.dummy" }, inhibit_login: true });
    const session = await anonymous.loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: name },
        password,
    });
    const client = createClient({
        baseUrl,
        userId: session.user_id,
        accessToken: session.access_token,
        deviceId: session.device_id,
    });
    const ready = seen(client, ClientEvent.Sync, (state) => (state === "PREPARED" ? true : undefined));
    await client.startClient({ lazyLoadMembers: true, initialSyncLimit: 20 });
    await ready;
    return client;
}

const seenByBob = {};
const [alice, bob] = await Promise.all([start("alice"), start("bob")]);
await alice.setDisplayName("Alice");

const invited = seen(bob, RoomEvent.MyMembership, (room, membership) => (membership === "invite" ? room.roomId : undefined));
const { room_id: roomId } = await alice.createRoom({ name: "Tea", preset: "private_chat", invite: [bob.getUserId()] });
seenByBob.invited = (await invited) === roomId;

const joined = seen(alice, RoomMemberEvent.Membership, (_event, member) =>
    member.userId === bob.getUserId() && member.membership === "join" ? true : undefined,
);
await bob.joinRoom(roomId);
await joined;

const message = (client, body) =>
    seen(client, RoomEvent.Timeline, (event) => (event.getContent().body === body && !event.status ? event : undefined));

const arriving = message(bob, "Milk or lemon?");
const { event_id: eventId } = await alice.sendEvent(roomId, EventType.RoomMessage, {
    msgtype: MsgType.Text,
    body: "Milk or lemon?",
    "m.mentions": { user_ids: [bob.getUserId()] },
});
const arrived = await arriving;
const room = bob.getRoom(roomId);
seenByBob.message = { sameEvent: arrived.getId() === eventId, sender: arrived.sender?.name, roomName: room.name };
seenByBob.unread = { total: room.getUnreadNotificationCount("total"), highlight: room.getUnreadNotificationCount("highlight") };

const typing = seen(bob, RoomMemberEvent.Typing, (_event, member) => (member.typing ? member.userId : undefined));
await alice.sendTyping(roomId, true, 5000);
seenByBob.typing = await typing;

const receipt = seen(alice, RoomEvent.Receipt, (event) => event.getContent()[eventId]?.["m.read"]?.[bob.getUserId()]);
await bob.sendReadReceipt(arrived);
const seenByAlice = { receipt: typeof (await receipt).ts };

const redacted = seen(bob, RoomEvent.Redaction, (event) => event.getAssociatedId());
await alice.redactEvent(roomId, eventId);
seenByBob.redacted = (await redacted) === eventId;

const answer = message(alice, "Lemon.");
await bob.sendTextMessage(roomId, "Lemon.");
seenByAlice.answer = (await answer).getSender();

for (const client of [alice, bob]) {
    client.stopClient();
    await client.logout(true);
}
console.log(JSON.stringify({ seenByAlice, seenByBob }));
process.exit(0);
