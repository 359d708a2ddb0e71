"""`python -m mcp_server.cli` is `epicwave`."""

from mcp_server.cli.main import main

main()
