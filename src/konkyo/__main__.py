from konkyo.cli import main

main()
