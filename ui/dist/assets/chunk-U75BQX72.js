import{i as e}from"/assets/chunk-3XOU5344.js";var t=e(!1),n=e(!1);export{t as a,n as b};
