"""`python -m mcp_server.cli` is `epicwave`."""

from mcp_server.cli.entry import main

main()
