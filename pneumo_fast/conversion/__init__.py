"""A folder of radiographs and a label table become a dataset."""
