"""WebSockets through a VIP with TLS, by a library that checks what it gets as browsers do (RFC 6455).

Arguments: name, address, file with the certificate to trust, WebSockets, messages over each.
"""

import asyncio
import ssl
import sys

import websockets

NAME, ADDRESS, TRUSTED, SOCKETS, MESSAGES = sys.argv[1:]


async def converse(number, trusted):
    """One WebSocket; gives how many messages came back as they were sent."""
    connect = websockets.connect(
        f"wss://{NAME}/socket", host=ADDRESS, port=443, ssl=trusted, server_hostname=NAME, max_size=None
    )
    messages = [f"message {number}.{at}" for at in range(int(MESSAGES))]
    # Every length of a frame's head, text that is no ASCII, and bytes.
    messages += ["", "ü" * 200, bytes(range(256)) * 400, b"\0" * 65_536]
    good = 0
    async with connect as client:
        for message in messages:
            await client.send(message)
            good += await client.recv() == message
        # In pieces, with a ping between them, answered with a pong.
        for message in messages:
            half = len(message) // 2
            await client.send([message[:half], message[half:]])
            await asyncio.wait_for(await client.ping(), 20)
            good += await client.recv() == message
    assert client.close_code == 1000, client.close_code
    return good


async def main():
    trusted = ssl.create_default_context(cafile=TRUSTED)
    good = await asyncio.gather(*(converse(number, trusted) for number in range(int(SOCKETS))))
    print(f"{sum(good)} messages came back over {len(good)} WebSockets (websockets {websockets.__version__})")


asyncio.run(main())
