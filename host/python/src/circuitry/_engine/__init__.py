"""The engine: everything that is alike for threads and for asyncio.

It does no I/O. It is generators that yield what is to be done (:mod:`.effects`) and are sent what came of it. Two small
drivers run them: ``circuitry._threads`` and ``circuitry.aio``.
"""
