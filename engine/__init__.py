"""What `common.main()` runs, one noun a module. Nothing here imports a script or `common`."""
