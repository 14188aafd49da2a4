"""Voice messages pass unchanged: what MSC3245 adds to `m.audio` is between clients."""

from __future__ import annotations

import os

from tests.client import Homeserver
from tests.client_api.support import make_room
from tests.media.support import download, upload


async def test_a_voice_message_arrives_as_it_was_sent(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    room_id = await make_room(bob, creator=alice)
    data = b"OggS" + os.urandom(20_000)
    name = await upload(alice, data, "audio/ogg", filename="voice message.ogg")
    content = {
        "msgtype": "m.audio",
        "body": "Voice message",
        "url": f"mxc://{name}",
        "info": {"duration": 12_300, "mimetype": "audio/ogg", "size": len(data)},
        "org.matrix.msc1767.text": "Voice message",
        "org.matrix.msc1767.file": {"url": f"mxc://{name}", "mimetype": "audio/ogg", "size": len(data)},
        "org.matrix.msc1767.audio": {"duration": 12_300, "waveform": [0, 256, 1024, 512, 0]},
        "org.matrix.msc3245.voice": {},
    }
    event_id = await alice.send(room_id, content)
    timeline = (await bob.sync())["rooms"]["join"][room_id]["timeline"]["events"]
    assert [event["content"] for event in timeline if event["event_id"] == event_id] == [content]
    answer = await download(bob, name)
    assert answer.ok() == data
    assert answer.headers["Content-Type"] == "audio/ogg"
    assert answer.headers["Content-Disposition"] == 'inline; filename="voice message.ogg"'
