"""Published methods that train vision-language models, one file each."""
