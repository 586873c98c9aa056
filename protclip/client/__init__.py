"""A client of the HTTP server, for programs: what ``Retriever`` and ``ProtCLIP`` answer, without a model here.

    from protclip.client import Client

    with Client("http://127.0.0.1:8000") as client:
        answer = client.search(text="Hydrolyses ATP.", k=5, where="reviewed")

It rides through a server's restart, asks again as the server says, and goes from one address to the next
(decision 082). It needs no torch.
"""

from protclip.client.clients import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
