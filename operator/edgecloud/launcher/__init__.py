"""The launcher: the first process (PID 1) of a worker, which starts, watches and stops the training processes.

It needs nothing but the standard library and Python 3.8, so that the zipapp made of it (`archive`) runs in any image
that has a `python3`. It runs no collective and imports no torch. From the outside in:

    __main__     the command line            supervisor   what to do on a directive, a signal, an end
    config       the environment, checked    talk         two conversations with the coordinator
    standing     what the launcher says      client       HTTP/1.1 over asyncio
    messages     directives, last message    linux        what PID 1 owes its orphans
    group        the processes of a round    output, sinks, log   where what they print goes
    process      one process                 verdict      how its end is to be read
    environment  what it is given            failure      why it failed, in words
    machine      CPUs, interfaces, ports     archive      all of this as one file
    channel      progress and the stop flag, between a process and the launcher (`progress`: the values in it)
"""
