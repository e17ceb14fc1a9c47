"""The front end: Streamlit pages that read a run folder and compute nothing that it should hold."""
