"""What a user asks for, one verb a file: references and settings in, a run folder, a file or a record out."""
